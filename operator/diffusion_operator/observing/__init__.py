"""From objects as the API server gives them to what planning looks at.

Pure: functions of dicts. Whatever is missing or malformed counts as not there, for anybody may have written it.
"""
