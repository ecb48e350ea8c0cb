-- Takes a place among the requests under way.
--
-- KEYS: one sorted set of place ids by the time their lease ends, in microseconds.
-- ARGV: the time or '' for the server's, limit, lease in microseconds, the new id, then ids given back.
-- Answers 1 when the place is taken, 0 when all are.

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end

local key = KEYS[1]
for i = 5, #ARGV do redis.call('ZREM', key, ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
if redis.call('ZCARD', key) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', key, string.format('%.0f', now + ARGV[3]), ARGV[4])
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ARGV[3] / 1000)))
return 1
