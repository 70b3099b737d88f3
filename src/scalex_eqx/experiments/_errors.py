from .._usage import UsageError as UsageError, in_shell as in_shell, shown as shown
