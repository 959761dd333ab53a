"""Where metrics go beside metrics.jsonl, a module each, named as the option `log_to` has it.

Each has a class `Logger`, a `training.logging.metric_logger.MetricLogger`. Its package is imported with the module;
where that is missing the extra of the same name is recommended.
"""
