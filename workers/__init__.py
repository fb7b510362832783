"""Processes of their own: the launcher and the task workers, and what they are made of.

Nothing here imports grpc, protobuf, asyncio, ssl, pykka, psutil or pyroute2.
"""
