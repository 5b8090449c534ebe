//! Simulated clusters of Cronclave nodes, and the checkers that judge them.
