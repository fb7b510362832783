"""One run of a job: allocation directory, environment, tasks, and the record for a later sweep."""
