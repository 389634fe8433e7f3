-- Puts messages back that Celery workers took and left: to the front, the last one given is the next to be taken.
-- KEYS  unacked, unacked_index, leases, then lists
-- ARGV  visibility timeout, then for each message: tag, message, how many lists it goes to, their numbers
-- Returns how many were put back, and how many not because a list they go to is something else
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local count, refused, at = 0, 0, 2

-- A key of the wrong type must be found before anything was taken out. That of a queue is the message's own matter.
redis.call('HLEN', KEYS[1])
local usable = {}
for i = 4, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  usable[i - 3] = kind == 'list' or kind == 'none'
end

while at <= #ARGV do
  local tag, lists = ARGV[at], tonumber(ARGV[at + 2])
  local since = redis.call('ZSCORE', KEYS[2], tag)
  for i = 1, lists do
    if since and not usable[tonumber(ARGV[at + 2 + i])] then
      since = false
      refused = refused + 1
    end
  end
  -- Again: the message may have been taken anew meanwhile, under the same tag.
  if since and tonumber(since) <= now - ARGV[1] and not redis.call('ZSCORE', KEYS[3], tag) then
    redis.call('ZREM', KEYS[2], tag)
    if redis.call('HDEL', KEYS[1], tag) == 1 then
      for i = 1, lists do redis.call('RPUSH', KEYS[3 + ARGV[at + 2 + i]], ARGV[at + 1]) end
      count = count + 1
    end
  end
  at = at + 3 + lists
end
return {count, refused}
