"""Run of a job: allocation directories, environment, tasks, and the record for a later sweep."""
