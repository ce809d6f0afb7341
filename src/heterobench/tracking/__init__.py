"""Records -> MLflow. Training never comes here; `importer` and `ui` import mlflow, and only when called."""
