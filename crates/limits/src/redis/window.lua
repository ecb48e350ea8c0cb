-- Decides sliding windows in their order, up to the first that refuses.
--
-- KEYS: one list per window, holding the widest window ever asked for and then the stamps of the
--       admitted requests, oldest first, all in microseconds.
-- ARGV: the time or '' for the server's, then limit and window of every key.
-- Answers three integers for every window asked: admitted or not, how many more, microseconds until
-- the next slot frees.

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end

-- Large numbers would be written with an exponent otherwise.
local function text(number)
  return string.format('%.0f', number)
end

local function stamp(key, place)
  return tonumber(redis.call('LINDEX', key, place))
end

-- Place of the first of `count` stamps that is younger than `age`.
local function first(key, count, age)
  local low, high = 1, count
  if count == 0 or now - stamp(key, 1) < age then return 1 end
  while low <= high do
    local middle = math.floor((low + high) / 2)
    if now - stamp(key, middle) >= age then low = middle + 1 else high = middle - 1 end
  end
  return low
end

-- How long a bucket is remembered after its newest stamp.
local function memory(widest)
  return math.max(2 * widest, 60000000)
end

local answer = {}
for i, key in ipairs(KEYS) do
  local max, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local count, widest, newest, changed = redis.call('LLEN', key) - 1, 0, 0, false
  if count > 0 then
    widest, newest = stamp(key, 0), stamp(key, -1)
    if newest > now then
      -- The server's clock was set back. The stamps follow it, as if no time had passed since the newest.
      local stamps = redis.call('LRANGE', key, 1, -1)
      redis.call('LTRIM', key, 0, 0)
      for _, at in ipairs(stamps) do redis.call('RPUSH', key, text(at - newest + now)) end
      newest, changed = now, true
    end
  end
  if count <= 0 or now - newest >= memory(widest) then
    redis.call('DEL', key)
    redis.call('RPUSH', key, text(window))
    count, widest, changed = 0, window, true
  elseif window > widest then
    redis.call('LSET', key, 0, text(window))
    widest, changed = window, true
  end
  local dropped = first(key, count, widest) - 1
  if dropped > 0 then
    redis.call('LTRIM', key, dropped + 1, -1)
    redis.call('LPUSH', key, text(widest))
    count = count - dropped
  end
  local start = 1
  if window < widest then start = first(key, count, window) end
  local inside = count - start + 1
  local admitted = inside < max
  local wait
  if admitted then
    wait = window
    if inside > 0 then wait = stamp(key, start) + window - now end
    redis.call('RPUSH', key, text(now))
    newest, changed = now, true
  else
    -- After a lowered limit several must go before one may come.
    wait = math.max(stamp(key, start + inside - max) + window - now, 1000)
  end
  if changed then
    redis.call('PEXPIRE', key, text(math.ceil((newest + memory(widest) - now) / 1000)))
  end
  table.insert(answer, admitted and 1 or 0)
  table.insert(answer, admitted and max - inside - 1 or 0)
  table.insert(answer, wait)
  if not admitted then break end
end
return answer
