"""Evaluation: Run + Qrels -> measures with intervals, tests against controls, and the report."""

from tamis.evaluation.controls import RANDOM, random_expectation, random_run
from tamis.evaluation.cost import Cost, Timing, environment, folder_bytes, measure_calls, measure_stage
from tamis.evaluation.hubness import Hubness, measure_hubness
from tamis.evaluation.judgement import Judge, Judgement
from tamis.evaluation.measures import DEFAULT_MEASURES, Evaluation, evaluate, parse_measures
from tamis.evaluation.report import Choice, Drop, LeakageCheck, Report, drops
from tamis.evaluation.significance import Comparison, PairedTest, Significance, compare
from tamis.evaluation.statistics import CorpusStatistics

__all__ = [
    "DEFAULT_MEASURES",
    "RANDOM",
    "Choice",
    "Comparison",
    "CorpusStatistics",
    "Cost",
    "Drop",
    "Evaluation",
    "Hubness",
    "Judge",
    "Judgement",
    "LeakageCheck",
    "PairedTest",
    "Report",
    "Significance",
    "Timing",
    "compare",
    "drops",
    "environment",
    "evaluate",
    "folder_bytes",
    "measure_calls",
    "measure_hubness",
    "measure_stage",
    "parse_measures",
    "random_expectation",
    "random_run",
]
