"""Who may do what: identity, owners, policy, grants."""
