"""The paper's protocol on test people: who and which frames, who competes, what is measured."""
