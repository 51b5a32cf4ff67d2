"""What does verification cost, and how does it grow with workers?"""
