"""TEAM-Net, its internal classifiers, and imports of published weights."""
