"""What the tests share: a scripted upstream, the shipped gateway as a process, raw clients and waiting.

Everything here uses real sockets on the loopback interface and talks to nothing else. Each wait has a deadline.
"""
