"""Our networks as OpenVINO graphs, built node by node."""
