"""Does the watermark convict thieves, and never the innocent?"""
