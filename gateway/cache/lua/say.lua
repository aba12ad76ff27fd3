-- Says more of a call's answer to the processes that follow it, and renews the lease of whoever makes the call.
--
-- KEYS  1 who makes the call, 2 what was said, 3 whether others wait for it
-- ARGV  1 id of who says it, 2 how many pieces were said before, 3 lease_ms, 4 1: this is the end, 5... the pieces
-- Reply -1 the call is not its any more, or something was lost; else whether others wait: 1 or 0
--
-- Pieces are said once and in order: where the list is not as long as it should be, nothing more is said.

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then
  return -1
end
for place = 5, #ARGV do
  redis.call('RPUSH', KEYS[2], ARGV[place])
end
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[3])
return redis.call('EXISTS', KEYS[3])
