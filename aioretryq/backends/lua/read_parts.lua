-- What parts of a chord returned, as many as one answer may have.
-- KEYS  results (.j)
-- ARGV  1 where results are ordered, how many were read before, how many to read, bytes that are enough
-- Returns whether there may be more, and the contents.
local read, at, most, enough = ARGV[1] == '1' and 'ZRANGE' or 'LRANGE', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local found, bytes, step = {}, 0, 1
while #found < most and bytes < enough do
  -- Never much more than is known to be small.
  local page = redis.call(read, KEYS[1], at + #found, at + #found + step - 1)
  for _, content in ipairs(page) do
    found[#found + 1] = content
    bytes = bytes + #content
  end
  if #page < step then return {0, found} end
  step = math.min(2 * step, 256)
end
return {1, found}
