-- The turns of a conversation, oldest first; each lives on as long as the one that was asked for.
--
-- KEYS  1 the last turn
-- ARGV  1 what the names of all turns of the tenant begin with, 2 ttl_ms, 3 turns_max, 4 bytes_max
-- Reply the turns; {} where one is missing; 1 where they are too many, 2 where they are too large
--
-- Turns are hashes: p the turn before ('' for none), i its items. Their names have the tenant's hash tag, so all are in
-- the slot of KEYS[1].

local key, turns, bytes = KEYS[1], {}, 0
while true do
  local turn = redis.call('HMGET', key, 'p', 'i')
  if not turn[2] then
    return {}
  end
  if #turns == tonumber(ARGV[3]) then
    return 1
  end
  bytes = bytes + #turn[2]
  if bytes > tonumber(ARGV[4]) then
    return 2
  end
  table.insert(turns, 1, turn[2])
  redis.call('PEXPIRE', key, ARGV[2])
  if turn[1] == '' then
    return turns
  end
  key = ARGV[1] .. turn[1]
end
