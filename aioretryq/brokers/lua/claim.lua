-- Takes messages under a lease: admits what is due, pops in order, notes each in kombu's unacked.
-- KEYS  unacked, unacked_index, leases, revocations, revoked, void, each queue's schedule,
--       each queue's list of bucket 0, then of bucket 3, 6 and 9
-- ARGV  limit, lease, lead of the index score, tag prefix, number of the last tag, number of the last
--       revocation seen, then for each queue what kombu appends to its messages in unacked
-- Returns {seconds until something parked is due ('' for never) for each queue},
--         {revoked id, ...}, {queue, bucket, how many, ...}, {message, ...},
--         the number of the last revocation read ('' for none), whether there may be more of them
-- The tag of the n-th message is made of the prefix, its number (12 digits, so that tags sort by age) and bucket.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local unacked, index, leases = KEYS[1], KEYS[2], KEYS[3]
local limit = tonumber(ARGV[1])
local ends, score = string.format('%.6f', now + ARGV[2]), string.format('%.6f', now + ARGV[3])
local queues = #ARGV - 6
local lists = 6 + queues
local due, revoked, runs, taken, offers = {}, {}, {}, {}, {}

-- Nobody reads the reply of this claim any more: see unclaim.lua. (Should it be another that was under way at the
-- time, it comes again at once.)
local void = redis.call('GET', KEYS[6])
if void and tonumber(ARGV[5]) < tonumber(void) then
  for q = 1, queues do due[q] = '0' end
  return {due, revoked, runs, taken, '', 0}
end

-- A key of the wrong type must fail here, before anything was popped.
redis.call('HLEN', unacked)
redis.call('ZCARD', index)
redis.call('ZCARD', leases)
for i = 7, lists do redis.call('ZCARD', KEYS[i]) end
for i = lists + 1, #KEYS do redis.call('LLEN', KEYS[i]) end

-- In pages, for there may be very many; until the last one is read nothing is taken, for it may be revoked.
local page = 1000
local fresh = redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[6], '+inf', 'WITHSCORES', 'LIMIT', 0, page)
for i = 1, #fresh, 2 do
  local expiry = redis.call('ZSCORE', KEYS[5], fresh[i])
  if expiry and tonumber(expiry) > now then revoked[#revoked + 1] = fresh[i] end
end
local unread = #fresh == 2 * page
if unread then limit = 0 end

-- Of a schedule's member: its list, its message, whether it is offered; nothing if it is none of ours.
local function read(member, q)
  local offered, bucket, length, start = string.match(member, '^(%+?)([0369]):(%d+):()')
  if offered and start + length <= #member + 1 then
    return KEYS[lists + bucket / 3 * queues + q], string.sub(member, start + length), offered ~= ''
  end
end

for q = 1, queues do
  local schedule, stay = KEYS[6 + q], 0
  repeat -- until a page has something of ours: what is not must not hide it
    local page, found = redis.call('ZRANGEBYSCORE', schedule, '-inf', now, 'LIMIT', stay, 100), false
    for _, member in ipairs(page) do
      local list, body, offered = read(member, q)
      found = found or list
      if list and not offered then
        -- In this order, for a server out of memory lets a script go on that began by removing.
        redis.call('ZREM', schedule, member)
        redis.call('LPUSH', list, body)
      else
        stay = stay + 1
        offers[#offers + 1] = list and {schedule, member, list, body}
      end
    end
  until found or #page < 100
  local first = redis.call('ZRANGE', schedule, stay, stay, 'WITHSCORES')
  due[q] = first[2] and string.format('%.6f', first[2] - now) or ''
end

for step = 0, 3 do
  for q = 1, queues do
    local room = limit - #taken
    local popped = room > 0 and redis.call('RPOP', KEYS[lists + step * queues + q], room) or {}
    for _, body in ipairs(popped) do
      local tag = string.format('%s%012d:%d', ARGV[4], ARGV[5] + #taken + 1, step * 3)
      redis.call('HSET', unacked, tag, '[' .. body .. ARGV[6 + q])
      redis.call('ZADD', leases, ends, tag)
      -- kombu's sweep parses what the index names as JSON, and fails on anything else: leases alone cover that.
      if string.byte(body) == 123 then redis.call('ZADD', index, score, tag) end
      taken[#taken + 1] = body
    end
    if #popped > 0 then
      for _, part in ipairs({q, step * 3, #popped}) do runs[#runs + 1] = part end
    end
  end
end
-- Only now: others that wait for these lists, Celery workers perhaps, get them before our next claim.
for _, offer in ipairs(offers) do
  redis.call('ZREM', offer[1], offer[2])
  redis.call('LPUSH', offer[3], offer[4])
end
return {due, revoked, runs, taken, fresh[#fresh] or '', unread and 1 or 0}
