"""Taking people, videos and clips out: the request, the deletion, the proof that nothing remains.

`takedowns.csv` is the request, `requests.py` adds to it. `whose.py` knows what a request covers,
`work.py` deletes that from the work folder, `ledger.py` notes which datasets held it without
repeating its name. `check.py` proves the absence; `search.py`, `contents.py`, `models.py` and
`repository.py` read bytes, files, trained models and the DVC cache for it.
"""
