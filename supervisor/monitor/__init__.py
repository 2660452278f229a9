"""What the host is doing: samples, the verdict, and admission."""
