"""The journal, and waking those who read it."""
