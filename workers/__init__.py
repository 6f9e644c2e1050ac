"""The worker: pulls trials, trains Keras models with their schedules, reports. No SQL, no Optuna."""
