-- $1 namespace, $2 since (null: all circuits)
--
-- Returns at least one row, without a circuit if nothing changed, and without a revision if there is
-- no such namespace. The circuits are read only if the namespace has a later revision.
SELECT @changes
