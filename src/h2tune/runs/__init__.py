"""From a federation file to a finished run: what is read, built, checked, run, predicted and exported."""
