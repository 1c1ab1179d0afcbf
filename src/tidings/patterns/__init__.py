"""Parts you declare: deciders, projections and replicas. Each is a pure value and imports only core."""
