-- One of all replicas looks after the export of usage, so that the sum over replicas is the fleet's number.
--
-- KEYS[1]  the name of the one that does, until it expires
-- ARGV     who asks, for how long (ms)
-- Reply    1 where it is the one that asks, else 0

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
