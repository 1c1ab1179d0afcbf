"""placeholder"""


def M2():
    pass
