"""The self-supervised task: scheduled values, online probes, health verdicts."""
