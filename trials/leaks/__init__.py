"""Whether anything is left of what is over: connections, requests, streams, and each way they fail."""
