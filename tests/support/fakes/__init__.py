"""Fakes of the programs around the plugin, and parts that follow a script of the test."""
