"""The lane to the Kubernetes API: requests, watches, and a loop that keeps a list of objects current.

The only package that imports the Kubernetes client, and imported only where the cluster is really asked: the client
costs some 30 MB. ``client`` speaks to the API server, ``listwatch`` keeps one kind of objects up to date in a thread
of its own. What the objects mean is decided above (the registry, endpoint discovery).
"""
