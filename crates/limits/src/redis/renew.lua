-- Renews the leases of places, also of those a restarted server has forgotten.
--
-- KEYS: the sorted set of every place.
-- ARGV: the time or '' for the server's, lease in microseconds, the id of every place.

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end

for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now + ARGV[2]), ARGV[2 + i])
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ARGV[2] / 1000)))
end
return #KEYS
