"""How fast a machine trains: where a step's time goes, and which settings make it faster."""
