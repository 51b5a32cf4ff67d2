"""What does recording cost?"""
