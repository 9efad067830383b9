"""The pages that a person sees in a browser: the start page, and the interactive documentation."""
