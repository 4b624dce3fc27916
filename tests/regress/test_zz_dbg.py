import sys; sys.path.insert(0, "/work/main/tests/regress")
from test_redis_fleet import *
def test_dbg(redis, member):
    server = redis()
    one, other = member(server, threshold=6), member(server, threshold=6)
    harvest(one, 1, 2, 3)
    counted(server, 3)
    harvest(other, 3, 4, 5)
    counted(server, 5)
    harvest(other, 6)
    import time; time.sleep(2)
    for e in list(other.log)[-4:]: print(e)
    print(server.ask("HGETALL", "postern:fact"), server.ask("ZRANGE", "postern:log", "0", "-1", "WITHSCORES"))
    print(server.ask("HGETALL", "postern:fleet"))
    print(list(other.stray), list(one.stray))
    assert 0
