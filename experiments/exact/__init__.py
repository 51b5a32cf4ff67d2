"""Does an exact run have one digest, whatever computes it?"""
