"""What a profile is calibrated from: programs that have a model read texts, and the files that they write for kvtcctl."""
