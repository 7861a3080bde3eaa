"""Private parts of other libraries: the only place that imports them.

Each module lists the parts it uses with the reason, checks them when it is imported first, and offers them by name.
A part that was renamed ends in an `UpstreamError` that names the library, never in "this model cannot be exported".
"""
