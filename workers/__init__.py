"""Launcher and task workers, which are processes of their own, and their parts.

No module here imports grpc, protobuf, asyncio, ssl, pykka, psutil or pyroute2.
"""
