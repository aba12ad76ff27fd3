-- Looks for a kept answer; where there is none, asks who makes the call, and takes it on where nobody does.
--
-- KEYS  1 marks of the tenant, 2 the answer, 3 who makes the call, 4 whether others wait for it
-- ARGV  1 scenario, 2 a fresh epoch, 3 id of whoever asks, empty: it takes nothing on, 4 lease_ms, 5 marks_s,
--       6 1: a kept answer will do
-- Reply {marks, answer or false, id of who makes the call or false}
--
-- An answer counts only with the marks that it was kept under: epoch of the tenant's marks, last purge of the tenant and
-- of the scenario. Marks that were lost (evicted, expired) come back under another epoch, so that what was kept before
-- stays out of reach, purged or not.

local marks = redis.call('HMGET', KEYS[1], 'e', 't', 's|' .. ARGV[1])
if not marks[1] then
  redis.call('HSET', KEYS[1], 'e', ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  marks = {ARGV[2], false, false}
end
local mark = marks[1] .. '.' .. (marks[2] or '') .. '.' .. (marks[3] or '')

if ARGV[6] == '1' then
  local kept = redis.call('GET', KEYS[2])
  if kept and string.sub(kept, 1, #mark + 1) == mark .. '\n' then
    return {mark, string.sub(kept, #mark + 2), false}
  end
end
if ARGV[3] == '' then
  return {mark, false, false}
end
local leader = redis.call('GET', KEYS[3])
if leader then
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[4])
else
  redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
end
return {mark, false, leader}
