# SPDX-License-Identifier: Apache-2.0
"""The way into C: functions, threads that are inside of them, and their end."""
