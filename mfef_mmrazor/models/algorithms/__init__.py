from .online_distill import OnlineDistill

__all__ = ['OnlineDistill']
