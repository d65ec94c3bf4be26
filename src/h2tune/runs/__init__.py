"""From a federation file to a finished run: enrol clients, build the method, run, inspect, evaluate, export."""
