"""What a study is: definitions, search spaces, schedules, trials and rankings. Values in, values out."""
