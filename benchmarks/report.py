"""Markdown of benchmark results."""


def of_models(results):
    return ""
