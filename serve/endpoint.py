"""What `serve deploy serve/endpoint.yaml` starts on a cluster: the gateway behind Ray Serve's proxy, and a deployment per model."""
