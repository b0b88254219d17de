"""What the paper claims and did: each claim judged by what was measured, and its own experiment."""
